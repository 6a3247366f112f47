"""The transparency log as mathematics: its tree, proofs, checkpoints, and receipts."""
