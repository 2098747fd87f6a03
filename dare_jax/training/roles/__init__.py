"""The gradients of attention and representation, taken apart."""
