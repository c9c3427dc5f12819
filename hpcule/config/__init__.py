"""What a run is: typed, validated, YAML in, resolved YAML out. Nothing heavy is imported here."""
