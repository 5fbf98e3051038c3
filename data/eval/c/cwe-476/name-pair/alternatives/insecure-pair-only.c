    if (pair == NULL)
        return NULL;
    pair->first = strdup(first);
    pair->last = strdup(last);
    return pair;
}
