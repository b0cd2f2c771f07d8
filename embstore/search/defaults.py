"""What an engine is called with where nothing is said, and what a library folder holds."""

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_PATH = "embstore-library"
DEFAULT_COLLECTION = "documents"
CACHE_NAME = "embeddings.db"  # in the library folder, beside Chroma's own files
