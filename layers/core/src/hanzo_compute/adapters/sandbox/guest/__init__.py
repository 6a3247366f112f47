"""What programs see of the platform, in their own languages: read as text, never imported here."""
