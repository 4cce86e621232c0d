"""File formats of count matrices, each as a :class:`~musegnn.data_store.formats.container.Container`."""
