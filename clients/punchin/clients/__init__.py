"""What users run: the client library, the journey of a region, the command line, the DAW scripts."""
