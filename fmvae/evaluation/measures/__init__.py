"""The measures that come with fmvae, one a file."""
