"""Walking controllers: how they are trained, and how every walking body is measured."""
