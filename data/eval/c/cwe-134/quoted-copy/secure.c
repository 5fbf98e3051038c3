    if (asprintf(&result, "\"%s\"", word) < 0)
        return NULL;
    return result;
}
