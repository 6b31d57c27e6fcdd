"""What a model reads beside the request: online features, within their deadline, and on-demand ones."""
