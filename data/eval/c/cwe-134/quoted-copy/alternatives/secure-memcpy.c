    size_t length = strlen(word);
    result = malloc(length + 3);
    if (result == NULL)
        return NULL;
    result[0] = '"';
    memcpy(result + 1, word, length);
    strcpy(result + 1 + length, "\"");
    return result;
}
