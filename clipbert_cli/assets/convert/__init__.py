"""Converters from public annotation formats to the JSONL records and answer vocabularies that the tasks read.

To add a converter:

1. Write a function `convert(raw, writer)` in the file of its data set. It finds the original files under the folder
   `raw` by their names (see `raw_files.py`) and passes records to `writer` (see `record_writer.py`). The same input
   must give the same bytes.
2. Add it to `CONVERTERS` in `registry.py`, and a part with its files, outputs and counts to `catalog.yaml`.
3. Say in `tests/readers.py` which task reads each output, and write small raw files for its tests.
"""
