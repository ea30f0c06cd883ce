"""Golden vectors: flowexp against numbers computed by the reference implementations."""
