module rekindle.test/age

go 1.26.6

require filippo.io/age v1.3.2
