"""Rankings of a gallery for every query, reduced to groups of ties (:class:`lshbench.types.RankedBlock`)."""
