"""Compiled CPU loops (numba): whole training steps of one member, activations, losses, optimiser steps."""
