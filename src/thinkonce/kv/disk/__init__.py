"""Attention state in files: blocks that outlive the process, found by several processes.

    FOLDER/owners.key                 what credentials are hashed and owners marked with, 0600;
    FOLDER/folder.key                 in its place where the folder is sealed
    FOLDER/purges.json                what was purged, for all models
    FOLDER/models.lock                held while a model's folder is begun or removed
    FOLDER/FINGERPRINT/               one model, as it was loaded
        model.json                    what it is and is served as, for who asks why another model
                                      finds nothing, and for `kv models`
        fidelity                      what audits have taught; fidelity.lock, fidelity.new
        0001.lock                     held by the process that writes the files of this number
        0001.rows                     what lies where: rows of 96 bytes, appended
        0001-00000003.blocks          records, appended; at most 64 MiB, or one record

A record is written and synced before its row is, and a row before anybody is told. So whatever a
row says is there, and what a crash left behind has no row.
"""
