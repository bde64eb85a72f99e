"""The HyMiRec model and its numerics: torch, numpy, faiss, transformers. Knows no Spark, Airflow or MLflow."""
