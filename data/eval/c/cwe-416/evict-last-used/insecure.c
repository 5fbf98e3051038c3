        cache->slots[i] = NULL;
        free(item);
    }
}
