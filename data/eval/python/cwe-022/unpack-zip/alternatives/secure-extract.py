            bundle.extract(item, folder)
