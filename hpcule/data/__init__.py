"""What we read: sources, partition, schedule, id-keyed randomness, augmentation."""
