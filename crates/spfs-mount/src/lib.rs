//! How a stack of layers becomes /spfs for one process tree.
