"""Looking for good values with Optuna: what is searched, the study, its trials, and who stops a bad run early."""
