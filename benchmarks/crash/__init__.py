"""What happens to stores and checkpoints when machines, disks and files fail; the case ``crash`` runs all of it."""
