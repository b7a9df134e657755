"""FourierHashNet (Roy et al., NeurIPS 2023) and its variants."""
