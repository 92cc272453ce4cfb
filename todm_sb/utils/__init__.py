"""What all parts need and none owns: text, files, folders."""
