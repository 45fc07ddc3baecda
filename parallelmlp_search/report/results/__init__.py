"""Results that figures and pages show: a finished search, evaluated rows, and what is computed from them."""
