    return strndup(text + offset, length);
}
