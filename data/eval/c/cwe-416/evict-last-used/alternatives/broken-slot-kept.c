        if (cache->last == item)
            cache->last = NULL;
        free(item);
    }
}
