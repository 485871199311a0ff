"""Scripts for developing edgepose; not part of the package."""
