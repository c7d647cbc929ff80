"""Many runs: which were asked for, bringing them to their ends, and where each stands."""
