"""Where findings are shown: one HTML file, TensorBoard's tab, its pictures."""
