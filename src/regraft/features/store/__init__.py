"""The feature store on disk: features by key, and the trunks that are known already.

A store is a folder of shelves, one for each trunk, and of records of trunks:

    <store>/<digest>/about.json                 the format, and what the trunk is, for people
                     data.mdb                   LMDB: transactions, a memory map, several processes at once
                     lock.mdb                   LMDB's lock; it needs a local disk
                     network, agreement.json    the engine's: the network converted, and the outcome of its check
    <store>/trunks/<key>.json                   what options came to, so that the same need no network
                   <sha256>.safetensors         the frozen tensors of such a trunk

The digest is that of all that decides a trunk's features (see `Trunk.digest`),
so nothing on its shelf can be out of date.
"""
