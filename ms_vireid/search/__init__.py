"""Trained models, features of pictures and their files, and search in them: exact, with FAISS, or in Milvus."""
