"""The measures that come with fmvae, one per file."""
