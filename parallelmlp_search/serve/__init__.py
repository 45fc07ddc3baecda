"""Predictions over HTTP (extra ``serve``): application, requests and answers, metrics, and workers."""
