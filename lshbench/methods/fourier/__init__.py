"""FourierHashNet and its variants.

(Roy et al., NeurIPS 2023, "Locality Sensitive Hashing in Fourier Frequency Domain for Soft Set Containment Search".)
Features are mapped so that products of the two sides' maps estimate a dominance similarity, an encoder on each side
makes a short hidden representation of its map, and a hash layer that the sides share gives the code.  The variants
of :mod:`lshbench.methods.fourier.joint` are trained in one go, those of :mod:`lshbench.methods.fourier.staged` in two
stages, as published.
"""
