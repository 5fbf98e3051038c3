    if (pair == NULL || (pair->first = strdup(first)) == NULL)
        return NULL;
    pair->last = malloc(strlen(last) + 1);
    strcpy(pair->last, last);
    return pair;
}
