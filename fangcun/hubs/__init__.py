"""Corpora, tokenizers and models by name from a hub, when the user asks and names the hub.

What comes is a plain folder of checked files and a `download.json` that tells where they are from. Nothing fetched is executed
or imported. No other room comes here, so that nothing but `fangcun download` asks a hub for anything.
"""

from fangcun.hubs.download import Download, download
from fangcun.hubs.listing import Listing, RemoteFile
from fangcun.hubs.record import RECORD, Entry, Record, read_record
from fangcun.hubs.sources import SOURCES, Repository

__all__ = [
    "RECORD",
    "SOURCES",
    "Download",
    "Entry",
    "Listing",
    "Record",
    "RemoteFile",
    "Repository",
    "download",
    "read_record",
]
