//! CPU kernels: packed weights, matrix products, attention, and the thread pool they run on.
