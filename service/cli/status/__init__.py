"""`drover status`: where a request is, in plain words; and how all of them are."""
