    for (size_t i = 0; i < length; i++) {
        if (i >= size || bytes[i] != magic[i])
            return false;
    }
    return true;
}
