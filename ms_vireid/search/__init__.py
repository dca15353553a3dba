"""Search in galleries of features: exact, with FAISS, or in Milvus; results as a table, JSON or a contact sheet."""
