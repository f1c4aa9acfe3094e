"""A gateway of several processes: one parent, which answers no request, and its workers.

parent      starts, watches and ends the workers; adds their numbers up; reloads
slot        one worker as its parent sees it: started, watched, started again
worker      the process that serves: its beginning and its end
member      what a worker asks of the others, by way of the parent
channel     questions and answers between a parent and a worker
messages    what they say
board       numbers that all workers read and change: allowances, quotas
lines       stderr of several processes, a whole line at a time
"""
