"""Control groups: one model of the tree over three layouts (v1, v2, hybrid)."""
