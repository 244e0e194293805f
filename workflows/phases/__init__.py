"""The phases of the workflows, in the order of the upgrade guide: one module per phase."""
