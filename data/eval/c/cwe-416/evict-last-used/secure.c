        if (cache->last == item)
            cache->last = NULL;
        cache->slots[i] = NULL;
        free(item);
    }
}
