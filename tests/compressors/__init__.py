"""The compressor package: identities, agreement with slow references, the codec, the parser, its building blocks."""
