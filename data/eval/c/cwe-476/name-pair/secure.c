    if (pair == NULL)
        return NULL;
    pair->first = strdup(first);
    pair->last = strdup(last);
    if (pair->first == NULL || pair->last == NULL) {
        free(pair->first);
        free(pair->last);
        free(pair);
        return NULL;
    }
    return pair;
}
