"""Public annotation formats -> the project's records, one small file a dataset; `base.py` has what they share."""
