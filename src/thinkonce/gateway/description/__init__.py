"""What the gateway can be asked, as OpenAPI 3.1: made of the same definitions that it runs on.

said        request headers, response headers, the schemas of controls and errors
endpoints   what goes through the cache, and what is forwarded
pages       the gateway's own pages
admin       everything under /cache
document    all of it, as one document
"""

from thinkonce.gateway.description.document import description_of, document_of

__all__ = ("description_of", "document_of")
