"""AMD SEV-SNP: attestation reports, the keys that sign them, and what a policy may ask of a guest and its host."""
